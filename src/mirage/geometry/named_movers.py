"""Movers by name: a language model says what in the picture can move, and SAM 3 finds it (the paper's filter)."""

import json
import re
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration, Sam3Model
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mirage.geometry.foreign import Preparation, load_strictly, loading, read_settings
from mirage.geometry.movers import Segmenter

PROMPT = (
    "Which things in this picture can move by themselves, or are being moved: people, animals, vehicles, boats, "
    "aircraft, thrown or carried things? Answer with nothing but a JSON list of short English nouns, each once, such "
    'as ["person", "car"]; answer [] if there are none.'
)
MOST_NAMES, MOST_WORDS = 12, 4
TOKENS = 32  # of a name, as SAM 3 was trained
SCORE = 0.3  # of a thing that is believed


class NamedMovers(Segmenter):
    """Qwen3-VL names the things that can move, SAM 3 segments them and the sky.

    The first and the last frame of a call are asked about; what either names is looked for in all.

    Args:
        speaker: The language model.
        tokenizer: Its tokenizer.
        patches: What cuts pictures into its patches.
        finder: SAM 3.
        words: SAM 3's tokenizer.
        sky: Whether the sky is left out too. A depth model that knows the sky puts it far away, where it can stay.
    """

    def __init__(
        self,
        speaker: Qwen3VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        patches: Qwen2VLImageProcessorPil,
        finder: Sam3Model,
        words: PreTrainedTokenizerBase,
        *,
        sky: bool = True,
    ):
        self.speaker, self.tokenizer, self.patches = speaker.eval(), tokenizer, patches
        self.finder, self.words, self.sky = finder.eval(), words, sky
        side = finder.config.vision_config.backbone_config.image_size
        self.preparation = Preparation(size=(side, side), keep_aspect=False, mean=(0.5,) * 3, std=(0.5,) * 3)

    @classmethod
    def load(
        cls, speaker: str | Path, finder: str | Path, *, dtype: torch.dtype | None = None, sky: bool = True
    ) -> "NamedMovers":
        """Load both models from their folders.

        Args:
            speaker: Folder of Qwen3-VL.
            finder: Folder of SAM 3.
            dtype: Of the weights; float32 if None.
            sky: Whether the sky is left out too.

        Returns:
            The segmenter, on the CPU.

        Raises:
            ValueError: If a model is of another kind or damaged.
        """
        for folder, kinds in ((speaker, ("qwen3_vl",)), (finder, ("sam3", "sam3_video"))):
            kind = read_settings(folder, "movers model").get("model_type")
            if kind not in kinds:
                raise ValueError(f"movers model must be {kinds[0]}, got {kind!r} in {folder}")
        with loading("movers model", speaker):
            tokenizer = AutoTokenizer.from_pretrained(str(speaker), local_files_only=True)
            patches = Qwen2VLImageProcessorPil.from_pretrained(str(speaker), local_files_only=True)
        with loading("movers model", finder):
            words = AutoTokenizer.from_pretrained(str(finder), local_files_only=True)
        return cls(
            load_strictly(Qwen3VLForConditionalGeneration, speaker, "movers model", dtype),
            tokenizer,
            patches,
            load_strictly(Sam3Model, finder, "movers model", dtype),
            words,
            sky=sky,
        )

    def to(self, device: torch.device | str) -> "NamedMovers":
        """Move both models."""
        self.speaker.to(device)
        self.finder.to(device)
        return self

    @torch.no_grad()
    def keep(self, frames: Float[Tensor, "v 3 h w"]) -> Bool[Tensor, "v h w"]:
        asked = frames[:1] if len(frames) == 1 else frames[[0, -1]]
        names = list(dict.fromkeys(name for frame in asked for name in self.names(frame)))
        return ~self.find(frames, names + ["sky"] * self.sky)

    @torch.no_grad()
    def names(self, frame: Float[Tensor, "3 h w"]) -> list[str]:
        """What in a picture can move, as the language model says.

        Args:
            frame: Colour in [-1, 1].

        Returns:
            Short names, perhaps none.
        """
        picture = ((frame.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        cut = self.patches(images=[picture], input_data_format="channels_first", return_tensors="pt")
        config, device = self.speaker.config, self.speaker.device
        places = int(cut["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2
        before, after = ("<|im_start|>user\n", f"{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
        image = [config.vision_start_token_id, *[config.image_token_id] * places, config.vision_end_token_id]
        encode = lambda text: self.tokenizer.encode(text, add_special_tokens=False)
        ids = torch.tensor([encode(before) + image + encode(after)], device=device)
        said = self.speaker.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == config.image_token_id).int(),
            pixel_values=cut["pixel_values"].to(device, self.speaker.dtype),
            image_grid_thw=cut["image_grid_thw"].to(device),
            max_new_tokens=128,
            do_sample=False,
        )
        return parse_names(self.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True))

    @torch.no_grad()
    def find(self, frames: Float[Tensor, "v 3 h w"], names: list[str]) -> Bool[Tensor, "v h w"]:
        """Where things of these names are.

        Args:
            frames: Colour in [-1, 1].
            names: Short names.

        Returns:
            True on each pixel of any of them.
        """
        found = torch.zeros(len(frames), *frames.shape[2:], dtype=torch.bool, device=frames.device)
        device = self.finder.device
        texts = []
        for name in names:
            told = self.words(name, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
            told = {key: told[key].to(device) for key in ("input_ids", "attention_mask")}
            texts.append(
                {"text_embeds": self.finder.get_text_features(**told), "attention_mask": told["attention_mask"]}
            )
        for index, frame in enumerate(frames.split(1)):
            if not texts:
                break
            pixels = self.preparation.pixels(frame).to(device, self.finder.dtype)
            seen = self.finder.get_vision_features(pixel_values=pixels)
            for text in texts:
                said = self.finder(vision_embeds=seen, **text)
                masks = things(said.pred_masks[0], said.pred_logits[0], said.presence_logits[0], *frame.shape[2:])
                found[index] |= masks.any(0).to(found.device)
        return found


def things(
    masks: Float[Tensor, "q y x"],
    logits: Float[Tensor, " q"],
    presence: Float[Tensor, " one"],
    height: int,
    width: int,
) -> Bool[Tensor, "n {height} {width}"]:
    """The things that SAM 3 believes in, out of all that it proposes.

    Args:
        masks: Logits of the proposed masks.
        logits: How sure it is of each.
        presence: How sure it is that there is any such thing.
        height: Rows of the picture.
        width: Columns of the picture.

    Returns:
        Their pixels.

    Example:
        >>> masks = torch.tensor([[[9.0, -9.0]], [[9.0, 9.0]]])
        >>> things(masks, torch.tensor([4.0, -4.0]), torch.tensor([4.0]), 1, 2).tolist()
        [[[True, False]]]
    """
    sure = logits.float().sigmoid() * presence.float().sigmoid() > SCORE
    chosen = masks[sure].float()[None]
    if not len(chosen[0]):
        return chosen.new_zeros(0, height, width, dtype=torch.bool)
    return F.interpolate(chosen, (height, width), mode="bilinear", align_corners=False)[0] > 0


def parse_names(answer: str) -> list[str]:
    """Read the names out of a language model's answer: a JSON list, or whatever it made of it.

    Args:
        answer: The answer.

    Returns:
        Lower-case names of at most four words, each once, at most twelve.

    Example:
        >>> parse_names('```json\\n["Person", "red car", "person"]\\n```')
        ['person', 'red car']
        >>> parse_names("<think>hm</think> 1. Dogs\\n2. a boat\\n")
        ['dogs', 'boat']
        >>> parse_names("There are no moving things in this picture."), parse_names("[]")
        ([], [])
    """
    answer = re.sub(r"<think>.*?(</think>|$)", "", answer, flags=re.S)
    listed = re.search(r"\[.*?(\]|$)", answer, flags=re.S)
    if listed:
        try:
            parts = json.loads(listed[0])
        except ValueError:  # cut off, single quotes or none
            parts = re.split(r"[,\n]", listed[0].strip("[]"))
    else:
        parts = re.split(r"[,;\n]", answer)
    names = []
    for part in parts:
        name = re.sub(r"^\W*(\d+\W+)?", "", str(part).lower()).strip(" \t\r\n.'\"`*]-")
        name = re.sub(r"^(an?|the)\s+", "", name)
        words = re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", name)
        if words and 0 < len(name.split()) <= MOST_WORDS and name not in ("none", "nothing", "no", "null", "sky"):
            names.append(name)
    return list(dict.fromkeys(names))[:MOST_NAMES]
