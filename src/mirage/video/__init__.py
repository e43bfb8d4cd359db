"""What we show: autoencoders behind one class, images and videos, and pictures for people."""
