"""A tiny, untrained SDXL pipeline with the shoebox's layout, for tests that need all parts of the real class.

Two text encoders, text_time conditioning, an autoencoder that reduces four times, a first UNet level without
attention, v-prediction with zero terminal SNR. Random weights, built in well under a second.
"""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WIDTH = 32  # of each text encoder
TOKENS = 16


def tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer of single letters: words are spelled out, nothing is unknown."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=TOKENS
    )


def tiny_pipeline(
    seed: int = 0,
    prediction_type: str = "v_prediction",
    size: int = 32,
    channels: int = 8,
    statistics: tuple[list[float], list[float]] | None = None,
) -> StableDiffusionXLPipeline:
    """Build the pipeline.

    ``size`` is the image's side in pixels, four times the latent's; ``channels`` are the latent's;
    ``statistics`` the latents' mean and standard deviation per channel. The class can decode with statistics
    only for 4 channels.
    """
    mean, std = statistics or (None, None)
    state = torch.get_rng_state()  # the global generator is left as it was
    torch.manual_seed(seed)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(8, 16, 16),
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=0.7,
        latents_mean=mean,
        latents_std=std,
    )
    unet = UNet2DConditionModel(
        sample_size=size // 4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 32),
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(1, 2),
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    zero_snr = prediction_type == "v_prediction"
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=zero_snr,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=zero_snr,
    )
    pipe = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    torch.set_rng_state(state)
    pipe.set_progress_bar_config(disable=True)
    return pipe
