"""``xaitools attack``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, with_classes_map, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--item", default="", help="Id of the image (default: the first of the dataset).")
@click.option("--probe", default="pgd", show_default=True, help="A member of the family adversarial.")
@click.option("--severity", default=5, show_default=True, type=click.IntRange(1, 5), help="5 is a radius of 8/255.")
@click.option("--target", "targets", multiple=True, help="What to explain (default top); may be repeated.")
@click.option("--method", "methods", multiple=True, help="One or more, separated by commas (default lrp).")
@click.option("--out", type=PATH, required=True, help="Folder for images, figure, maps and attack.json.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated.")
@with_classes_map
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, item: str, probe: str, severity: int, targets: tuple[str, ...],
    methods: tuple[str, ...], out: Path, formats: str, settings: tuple[str, ...], classes_map: Path | None, seed: int, device: str,
) -> None:  # fmt: skip
    """Attacks one image, saves it, and explains the model's decision before and after.

    images.safetensors holds both images exactly; PNG files are rounded to 8 bits, and attack.json says what loss that leaves.
    """
    from ...attribution.explanation import explain_image
    from ...audit.attacked import attack_one
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...report.attacked import save_attacked
    from ...report.store import check_formats, check_out

    names = at_commas(methods) or ["lrp"]
    wanted = check_formats(at_commas([formats]))
    params = parsed_settings(settings, {*names, probe, "model"})
    check_out(out, ["clean", "adversarial"])
    data = load_dataset(dataset)
    model = loaded_model(model_name, device, params.get("model", {}))
    mapping = read_classes_map(classes_map) if classes_map else None
    found = attack_one(model, data, item, probe, severity=severity, seed=seed, params=params.get(probe), classes_map=mapping)
    explanations = []
    for name, sample in (("clean", found.clean), ("adversarial", found.adversarial)):
        with session.progress(name) as progress:
            explanations.append(
                explain_image(model, sample, targets or ("top",), names, name=name, seed=seed, params=params, data=data, progress=progress)
            )
    document, files = save_attacked(found, explanations, out, wanted, seed=seed)
    for file in files:
        session.say(f"wrote {file}")
    loss = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in found.loss.items())
    session.result(document, f"{found.clean.id} under {found.probe}: loss {loss}; largest change {255 * found.largest:.2f}/255")
