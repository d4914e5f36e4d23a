"""Cfgs of networks that were published for Darknet, written anew, layer by layer."""


def section(name, **options):
    lines = [f"{key.rstrip('_')}={value}" for key, value in options.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def net(size, channels=3, width=None):
    return section("net", height=size, width=width or size, channels=channels)


def conv(filters, size=1, activation="linear", batch_normalize=1, pad=1, **options):
    return section(
        "convolutional",
        batch_normalize=batch_normalize,
        filters=filters,
        size=size,
        pad=pad,
        activation=activation,
        **options,
    )


def depthwise(filters, size, activation, stride=1):
    return conv(filters, size, activation, groups=filters, stride=stride)


EFFICIENTNET_BLOCKS = [
    # filters inside, kernel, stride, filters squeezed, filters after
    *[(32, 3, 1, 8, 16), (96, 3, 2, 16, 24), (144, 3, 1, 8, 24)],
    *[(144, 5, 2, 8, 40), (192, 5, 1, 16, 40)],
    *[(192, 3, 1, 16, 80), (384, 3, 1, 24, 80), (384, 3, 1, 24, 80)],
    *[(384, 5, 2, 24, 112), (576, 5, 1, 32, 112), (576, 5, 1, 32, 112)],
    *[(576, 5, 2, 32, 192), *[(960, 5, 1, 64, 192)] * 3],
    (960, 3, 1, 64, 320),
]


def efficientnet_trunk():
    """The first 132 layers of Darknet's `efficientnet_b0`."""
    sections, before = [conv(32, 3, "swish", stride=2)], None
    for inside, size, stride, squeezed, filters in EFFICIENTNET_BLOCKS:
        sections += [
            conv(inside, 1, "swish"),
            depthwise(inside, size, "swish", stride),
            section("avgpool"),
            conv(squeezed, 1, "swish", batch_normalize=0),
            conv(inside, 1, "logistic", batch_normalize=0),
            section("scale_channels", from_=-4),
            conv(filters),
        ]
        if filters == before:
            sections += [
                section("dropout", probability=0.2),
                section("shortcut", from_=-9, activation="linear"),
            ]
        before = filters
    return [*sections, conv(1280, 1, "swish")]


def efficientnet_b0(size=224, classes=1000):
    return "".join(
        [
            net(size),
            *efficientnet_trunk(),
            section("avgpool"),
            section("dropout", probability=0.2),
            conv(classes, batch_normalize=0),
            section("softmax", groups=1),
        ]
    )


def enet_coco(size=416):
    """Darknet's `enet-coco`: that trunk and two heads, which add unlike channels."""
    return "".join(
        [
            net(size),
            *efficientnet_trunk(),
            conv(256, 1, "leaky"),
            conv(256, 3, "leaky"),
            section("shortcut", from_=-2, activation="leaky"),
            conv(255, batch_normalize=0),
            section("yolo", mask="3,4,5", classes=80, num=6),
            section("route", layers=-4),
            conv(128, 1, "leaky"),
            section("upsample", stride=2),
            section("shortcut", from_=90, activation="leaky"),
            conv(128, 3, "leaky"),
            section("shortcut", from_=-3, activation="leaky"),
            section("shortcut", from_=90, activation="leaky"),
            conv(255, batch_normalize=0),
            section("yolo", mask="1,2,3", classes=80, num=6),
        ]
    )


FASTEST_BLOCKS = [
    # filters inside, stride, filters after, repetitions
    *[(16, 1, 8, 1), (16, 1, 8, 1), (48, 2, 16, 1), (64, 1, 16, 2)],
    *[(64, 2, 16, 1), (96, 1, 16, 2), (96, 1, 32, 1), (192, 1, 32, 4)],
    *[(192, 2, 48, 1), (272, 1, 48, 4), (272, 2, 96, 1), (448, 1, 96, 5)],
]


def yolo_fastest(size=320):
    """Like Yolo-Fastest: 28 depthwise convolutions, two heads."""
    sections, before = [conv(16, 3, "leaky", stride=2)], None
    for inside, stride, filters, count in FASTEST_BLOCKS:
        for _ in range(count):
            sections += [
                conv(inside, 1, "leaky"),
                depthwise(inside, 3, "leaky", stride),
            ]
            sections.append(conv(filters))
            if filters == before and stride == 1:
                sections.append(section("dropout", probability=0.2))
                sections.append(section("shortcut", from_=-5, activation="linear"))
            before = filters
    return "".join(
        [
            net(size),
            *sections,
            conv(96, 1, "leaky"),
            *fastest_head(96, 128),
            section("route", layers=-7),
            section("upsample", stride=2),
            section("route", layers="-1,81"),
            conv(96, 1, "leaky"),
            *fastest_head(96, 96),
        ]
    )


def fastest_head(first, second):
    return [
        depthwise(first, 5, "leaky"),
        conv(second),
        depthwise(second, 5, "leaky"),
        conv(second),
        conv(255, batch_normalize=0),
        section("yolo", mask="0,1,2", classes=80, num=6),
    ]
