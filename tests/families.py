"""One model string for every family that xaitools takes from elsewhere: random weights, small inputs."""

TORCHVISION = {
    "alexnet": "size=64,80", "vgg11": "size=64,80", "vgg11_bn": "size=64,80", "googlenet": "size=64,80", "resnet18": "size=64,80",
    "resnet50": "size=64,80", "mobilenet_v2": "size=64,80", "mobilenet_v3_small": "size=64,80", "efficientnet_b0": "size=64,80",
    "fcn_resnet50": "shorter=64", "deeplabv3_mobilenet_v3_large": "shorter=64", "deeplabv3_resnet50": "shorter=64",
    "lraspp_mobilenet_v3_large": "shorter=64",
    "fasterrcnn_resnet50_fpn": "min_size=96&max_size=128", "fasterrcnn_resnet50_fpn_v2": "min_size=96&max_size=128",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "min_size=96&max_size=128", "maskrcnn_resnet50_fpn": "min_size=96&max_size=128",
    "retinanet_resnet50_fpn": "min_size=96&max_size=128", "retinanet_resnet50_fpn_v2": "min_size=96&max_size=128",
    "fcos_resnet50_fpn": "min_size=96&max_size=128", "ssd300_vgg16": "", "ssdlite320_mobilenet_v3_large": "",
}  # fmt: skip
SMP = ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet")

FAMILIES = [f"torchvision:{name}?weights=none&classes=cat,dog,owl&{options}".rstrip("&") for name, options in TORCHVISION.items()]
FAMILIES += [f"smp:{name}?encoder=resnet18&weights=none&classes=cat,dog,owl" for name in SMP]
