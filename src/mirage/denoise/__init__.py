"""What we imagine: the denoiser, what it is told, and the loop that runs it."""

from mirage.denoise.conditioning import Conditioning as Conditioning
from mirage.denoise.conditioning import branch_input as branch_input
from mirage.denoise.flow import add_noise as add_noise
from mirage.denoise.flow import prior_of as prior_of
from mirage.denoise.flow import to_clean as to_clean
from mirage.denoise.flow import to_velocity as to_velocity
from mirage.denoise.sampler import run_transformer as run_transformer
from mirage.denoise.sampler import sample as sample
from mirage.denoise.text import encode_prompts as encode_prompts
from mirage.denoise.text import null_context as null_context
from mirage.denoise.transformer import MirageTransformer as MirageTransformer
