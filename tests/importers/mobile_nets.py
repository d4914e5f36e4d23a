"""MobileNet and MobileNetV2, narrow, by whatever writes a format's networks."""

MOBILENET = [(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), *[(256, 1)] * 5]


def mobilenet(net, width=8):
    x = net.relu(net.norm(net.conv(net.image, width, 3, 2)))
    channels = width
    for filters, stride in [*MOBILENET, (512, 2), (512, 1)]:
        x = net.relu(net.norm(net.conv(x, channels, 3, stride, groups=channels)))
        channels = filters * width // 16
        x = net.relu(net.norm(net.conv(x, channels, 1)))
    return net.dense(net.flatten(net.mean(x)), 10)


def mobilenet_v2(net, width=8):
    """With residuals, relu6, and a convolution for the classes."""
    x = net.relu6(net.norm(net.conv(net.image, width, 3, 2)))
    channels = width
    blocks = [(1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 2, 2), (6, 24, 2, 1), (6, 40, 1, 2)]
    for expansion, filters, count, stride in blocks:
        for n in range(count):
            inside = expansion * channels
            y = net.relu6(net.norm(net.conv(x, inside, 1)))
            step = stride if n == 0 else 1
            y = net.relu6(net.norm(net.conv(y, inside, 3, step, groups=inside)))
            y = net.norm(net.conv(y, filters, 1))
            x = net.add(y, x) if n else y
            channels = filters
    x = net.relu6(net.norm(net.conv(x, 64, 1)))
    return net.flatten(net.conv(net.mean(x), 10, 1))
