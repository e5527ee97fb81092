"""What a twin loses when its factor alone is drawn anew, beside its honest model: python benchmarks/twins.py"""

import xaitools as xt

PAIRS = [
    ("unet-scenes-background", "unet-scenes", "shortcut=background"),
    ("unet-scenes-tag", "unet-scenes", "shortcut=tag&prevalence=1&others=0"),
    ("yolo-scenes-light", "yolo-scenes", "shortcut=light"),
    ("faster-rcnn-scenes-tag", "faster-rcnn-scenes", "shortcut=tag&prevalence=1&others=0"),
]

for twin, honest, factor in PAIRS:
    for name in (twin, honest):
        model = xt.load_model(name)
        tied, anew = (
            xt.evaluate(model, xt.load_dataset(f"scenes:test?n=100&{factor}&rho={rho}"), batch_size=20)["value"] for rho in (1, 0)
        )
        print(f"{factor:40} {name:26} {tied:.3f} to {anew:.3f}, drop {tied - anew:.3f}")
