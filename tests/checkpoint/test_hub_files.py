"""What is fetched from the hub: all that is read, and none of what lies beside it."""

from huggingface_hub.utils import filter_repo_objects

from mirage.checkpoint.hub import LEFT, wanted

TRAINED = "diffusion_pytorch_model"
WAN = [f"{TRAINED}-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [f"{TRAINED}.safetensors.index.json"]
WAN += ["config.json", "configuration.json", "Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"]
WAN += [f"google/umt5-xxl/{name}" for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json")]
DIFFUSERS = ["model_index.json", "scheduler/scheduler_config.json", "vae/config.json", f"vae/{TRAINED}.safetensors"]
DIFFUSERS += [f"transformer/{TRAINED}-00001-of-00002.safetensors", "transformer/config.json"]
DIFFUSERS += ["text_encoder/config.json", "text_encoder/model-00001-of-00005.safetensors", "tokenizer/spiece.model"]
BESIDE = ["README.md", ".gitattributes", "assets/logo.png", "assets/comp.json", "examples/i2v_input.JPG"]
PARTS = ["scheduler", "text_encoder", "tokenizer", "transformer", "vae"]


def taken(files: list[str], *about) -> list[str]:
    return list(filter_repo_objects(files, allow_patterns=wanted(*about), ignore_patterns=LEFT))


def test_both_layouts_of_wan_are_fetched_whole_and_alone():
    assert taken(WAN + BESIDE, "model") == WAN
    more = [*BESIDE, "Wan2.2_VAE.pth", "transformer_2/config.json", f"vae/{TRAINED}.fp16.safetensors", "vae/vae.pth"]
    assert taken(DIFFUSERS + more, "model", PARTS) == DIFFUSERS


def test_models_of_transformers_come_without_their_other_copies():
    files = ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.json", "merges.txt"]
    copies = ["pytorch_model.bin", "tf_model.h5", "sam3.pt", "model.pth", "onnx/model.onnx", "onnx/config.json"]
    assert taken(files + copies, "depth model") == files


def test_branches_come_in_whatever_kind_they_are():
    assert taken(["vace.safetensors", "vace.pth", "notes.md"], "memory") == ["vace.safetensors", "vace.pth"]
