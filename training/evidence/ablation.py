"""mDPO taken apart: its terms, its rejected image, and plain DPO, all trained on the same pairs."""

from __future__ import annotations

from training.evidence.runs import Variant

#: The first is the recipe itself.
TERMS = (
    Variant("", "mDPO"),
    Variant("no-image-term", "mDPO without the image term", ("train.weights.image=0",)),
    Variant("no-anchor", "mDPO without the anchor", ("train.weights.anchor=0",)),
    Variant("all-anchors", "mDPO, anchors on all three", ('train.anchors=["chosen","rejected","corrupted"]',)),
    Variant("dpo", "DPO", ("train.objective=dpo", "train.probe_image=true")),
    Variant("blind-dpo", "DPO without images", ("train.objective=dpo", "train.use_images=false")),
)
IMAGES = (
    Variant("crop-20-50", "crop keeping 20-50 %", ("train.corruption.keep_area=[0.2,0.5]",)),
    *(
        Variant(kind.replace("_", "-"), label, (f"train.corruption.kind={kind}", *more))
        for kind, label, more in (
            ("other", "another pair's image", ()),
            ("black", "black", ()),
            ("gaussian", "gaussian noise", ()),
            ("diffusion", "diffusion noise, step 500", ()),
            ("block_mask", "half of the cells masked", ()),
            ("augment", "MoCo v2 augmentation", ()),
            ("clip_mask", "CLIP-chosen mask", ("train.corruption.clip_model=scenes-clip",)),
        )
    ),
)
