"""What each family of probes asks, and when its answer should not be trusted."""

from __future__ import annotations

from ..registry import About

ABOUT = {
    "domain": About(
        "Does the model depend on the weather, the light or the manner of picture that it was trained on? The same scene is shown in "
        "fog, at night, as a sketch or with the colours of another source, while objects and labels stay. The answer is how many points "
        "of the metric are lost.",
        "Geirhos et al. 2020, Shortcut learning in deep neural networks; fog and snow after Hendrycks and Dietterich 2019",
        "A change that makes objects invisible costs every honest model too; look at the pictures beside the drop.",
    ),
    "texture": About(
        "Does the model decide by the surface of objects rather than by their shape? Surfaces are shuffled, swapped with those of other "
        "classes or emptied, and no pixel outside of the objects changes. The answer is a drop, or the share of decisions that "
        "follow the shape.",
        "Geirhos et al. 2019, ImageNet-trained CNNs are biased towards texture",
        "It needs good outlines: where data has boxes alone, a box's corners are background and change with it.",
    ),
    "background": About(
        "Does the model decide by what is behind the objects? The same objects are set in front of backgrounds of their own class and of "
        "other classes, and the difference is the gap. Pasting is on both of its sides, so that its traces cancel.",
        "Xiao, Engstrom, Ilyas and Madry 2020, Noise or Signal: The Role of Image Backgrounds",
        "Real context helps an honest model as well: a gap says that the background counts, and not that it should not.",
    ),
    "pose": About(
        "Does the model know objects only at the angle at which it was shown them? The whole image or each object alone is turned, "
        "mirrored, scaled or sheared, and the truth moves along. The answer is how many points of the metric are lost.",
        "Alcorn et al. 2019, Strike (with) a Pose",
        "A drop at angles that the training data never had is a lack of data, not a shortcut; set degrees to angles that it has.",
    ),
    "cooccurrence": About(
        "Does the model find an object by the company it keeps? The other objects are painted over, or one is pasted that was never there. "
        "The answer is how many points of the metric are lost.",
        "Shetty, Schiele and Fritz 2019, Not Using the Car to See the Sidewalk",
        "Painting over leaves traces of its own; compare with the control, which paints where no object is.",
    ),
    "artifact": About(
        "Does something that a source left in its pictures give the class away? A tag, a watermark, a frame or a cast comes or goes. "
        "The answer is a drop, and for each class how much more the model gives to it afterwards.",
        "Lapuschkin et al. 2019, Unmasking Clever Hans predictors",
        "Only the marks that are tried can be found; a source may have left one that nobody thought of.",
    ),
    "adversarial": About(
        "How small a change is enough to make the model wrong? The change climbs the model's own loss within a radius, and a random "
        "direction of the same size runs beside it. The answer is how much is left of the metric.",
        "Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks; for segmenters Gu et al. 2022, SegPGD",
        "An attack bounds robustness from above only: one that fails may be broken, and the report lists the signs (Athalye et al. 2018).",
    ),
    "distortion": About(
        "How much does the model lose to noise, blur, weather and compression? Fifteen corruptions are applied at five severities. "
        "The answer is the mean over all of them, absolute and relative to clean images.",
        "Hendrycks and Dietterich 2019, Benchmarking Neural Network Robustness; for boxes Michaelis et al. 2019",
        "It measures robustness, not shortcuts; frost is drawn here, not photographed, so the mean is close to the published one only.",
    ),
}
