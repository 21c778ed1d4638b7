"""How the dataset is written, and what stops it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_serializer, model_validator

from pipeline.base.config import Count, Fraction, Frozen, Name, NonNegative
from pipeline.publishing.licences import licence_id
from pipeline.scoring.config import Clip


class StyleGates(Frozen):
    """How much the two texts of a pair may differ in style, over all descriptions; null stops nothing."""

    vocabulary: str | None = Field(
        None,
        description="objects that the classifier of max_auc does not see, as in score.objects; default: that of "
        "rewrite, or of the first scorer that has one",
    )
    max_auc: Annotated[Fraction, Field(ge=0.5)] | None = Field(
        None, description="how well a classifier may tell chosen from rejected by style; 0.5 is not at all"
    )
    max_length_gap: NonNegative | None = Field(None, description="mean difference of the lengths, in words")
    max_logp_gap: NonNegative | None = Field(None, description="mean difference of the log-probs, in nats per token")
    min_edit_distance: Fraction | None = Field(None, description="mean share of the words that differ, at least")
    max_edit_distance: Fraction | None = Field(None, description="mean share of the words that differ, at most")

    @model_validator(mode="after")
    def _leaves_room(self) -> StyleGates:
        low, high = self.min_edit_distance, self.max_edit_distance
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_edit_distance={low:g} is above max_edit_distance={high:g}; change one of the two")
        return self


class Similar(Clip):
    """Each pair gets the dataset's most similar other image that is asked the same and has another chosen answer, with
    that answer, for SymMPO (docs/publishing.md)."""

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="that the model computes in; auto: bfloat16 on a GPU, float32 elsewhere"
    )


def _in_one_line(text: str) -> str:
    if len(text.splitlines()) > 1 or text != text.strip():
        raise ValueError(f"{text!r} is not one line; take the line breaks and the space around it away")
    return text


Line = Annotated[Name, AfterValidator(_in_one_line)]
#: Options that only the card tells: they change no row, and nothing that was made from the rows.
TOLD = frozenset({"license", "license_name", "license_link", "authors", "citation", "tags"})


class Publish(Frozen):
    """How the dataset is written, and what its card says of it. Images that the prompts hold are always in the pairs,
    and so are members of tars and what readers of the file could see in different ways."""

    rows_per_shard: Count = Field(10_000, description="rows in one file of the dataset")
    images: Literal["embed", "reference"] = Field(
        "embed",
        description="embed: copy images that the prompts only name, from files and addresses, into the pairs, so that "
        "others can open the dataset; reference: leave their paths, which lead nowhere on another machine",
    )
    images_in_candidates: bool = Field(False, description="images in the table of all candidates, too")
    style: StyleGates = Field(StyleGates(), description="what stops publishing")
    max_blindness: Annotated[Fraction, Field(ge=0.5)] | None = Field(
        None,
        description="what stops publishing, too: the share of pairs whose chosen text may be told without the image; "
        "0.5 is chance (docs/blindness.md)",
    )
    similar: Similar | None = Field(
        None,
        description="columns similar_images and similar_chosen, which train.objective=symmpo reads, by the CLIP model "
        "that says which images are alike; null: none",
    )
    license: Annotated[str, AfterValidator(licence_id)] | None = Field(
        None,
        description="id of the Hub's list of licences, such as cc-by-4.0; other: see license_name; unknown: nobody can "
        "say. Default: apache-2.0 for the built-in world, none for other images",
    )
    license_name: Line | None = Field(None, description="what a licence is called that is not on the list")
    license_link: Line | None = Field(None, description="where its text is")
    authors: tuple[Line, ...] = Field((), description="who made the dataset, for its card")
    citation: Name | None = Field(None, description="how to cite it: a BibTeX entry, or any text")
    tags: tuple[Line, ...] = Field((), description="tags of the card, beside those that every dataset of ours has")

    @model_serializer(mode="wrap")
    def _as_before_there_were_similar_images(self, write: Any) -> dict[str, Any]:
        """What a card says of a recipe stays."""
        values: dict[str, Any] = write(self)
        return values if self.similar is not None else {key: value for key, value in values.items() if key != "similar"}

    @model_validator(mode="after")
    def _names_its_licence(self) -> Publish:
        if self.license == "other" and self.license_name is None:
            raise ValueError("license=other says nothing alone; add license_name, and license_link to its text")
        if self.license != "other" and (self.license_name or self.license_link):
            raise ValueError(
                f"license_name and license_link are for license=other, and license is {self.license or 'not given'}; "
                "set license=other, or remove them"
            )
        return self
