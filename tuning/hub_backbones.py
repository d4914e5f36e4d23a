"""Image backbones of KerasHub with depthwise, separable or grouped convolutions.

Small and with random weights: presets would need a download.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

IMAGE_SHAPE = (64, 64, 3)


def efficient_net(models) -> keras.Model:
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[16, 16, 24],
        stackwise_output_filters=[16, 24, 40],
        stackwise_expansion_ratios=[1, 4, 6],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["v1", "unfused", "unfused"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        input_shape=IMAGE_SHAPE,
    )


def mobile_net(models) -> keras.Model:
    """MobileNetV3's blocks."""
    return models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=96,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=16,
        image_shape=IMAGE_SHAPE,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=96,
    )


def mobile_net_v5(models) -> keras.Model:
    """Inverted bottlenecks with a depthwise convolution at the start and in the middle,
    and an attention that halves its keys by another."""
    return models.MobileNetV5Backbone(
        stackwise_block_types=[["er"], ["uir", "uir", "mqa"]],
        stackwise_num_blocks=[1, 3],
        stackwise_num_filters=[[24], [48, 48, 48]],
        stackwise_strides=[[2], [2, 1, 1]],
        stackwise_act_layers=[["relu"], ["relu"] * 3],
        stackwise_exp_ratios=[[4.0], [6.0, 4.0, 1.0]],
        stackwise_se_ratios=[[0.0], [0.0] * 3],
        stackwise_dw_kernel_sizes=[[0], [5, 3, 3]],
        stackwise_dw_start_kernel_sizes=[[0], [0, 3, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0] * 3],
        stackwise_exp_kernel_sizes=[[3], [0] * 3],
        stackwise_pw_kernel_sizes=[[1], [0] * 3],
        stackwise_num_heads=[[0], [0, 0, 4]],
        stackwise_key_dims=[[0], [0, 0, 16]],
        stackwise_value_dims=[[0], [0, 0, 16]],
        stackwise_kv_strides=[[0], [0, 0, 2]],
        stackwise_use_cpe=[[False], [False] * 3],
        use_msfa=False,
        image_shape=IMAGE_SHAPE,
    )


def xception(models) -> keras.Model:
    return models.XceptionBackbone(
        stackwise_conv_filters=[[16, 24], [24, 32], [48, 48]],
        stackwise_pooling=[True, True, False],
        image_shape=IMAGE_SHAPE,
    )


def csp_net(models) -> keras.Model:
    """Bottlenecks with 4 groups, as in a CSPResNeXt."""
    return models.CSPNetBackbone(
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[32, 64],
        block_type="bottleneck_block",
        stage_type="csp",
        block_ratio=[1.0],
        expand_ratio=[2.0],
        groups=4,
        image_shape=IMAGE_SHAPE,
    )


def hg_net_v2(models) -> keras.Model:
    """Light blocks that end in a 5×5 depthwise convolution."""
    return models.HGNetV2Backbone(
        depths=[1, 2],
        embedding_size=16,
        hidden_sizes=[32, 64],
        stem_channels=[3, 16, 16],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[(16, 16, 32, 1, 2, 3), (32, 16, 64, 1, 2, 5)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=IMAGE_SHAPE,
    )


def mix_transformer(models) -> keras.Model:
    """SegFormer's encoder: a depthwise convolution in each feed-forward block."""
    return models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[16, 32],
        image_shape=IMAGE_SHAPE,
    )


BACKBONES: dict[str, Callable] = {
    "EfficientNetBackbone": efficient_net,
    "MobileNetBackbone": mobile_net,
    "MobileNetV5Backbone": mobile_net_v5,
    "XceptionBackbone": xception,
    "CSPNetBackbone": csp_net,
    "HGNetV2Backbone": hg_net_v2,
    "MiTBackbone": mix_transformer,
}


def backbone(name: str) -> keras.Model:
    """A backbone by its name in `keras_hub.models`."""
    import keras_hub

    return BACKBONES[name](keras_hub.models)
