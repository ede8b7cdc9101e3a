"""The ImageNet CGN (Sec. 3.1, Fig. 2): BigGAN-deep backbones and a U2-Net head on the shape mechanism."""
