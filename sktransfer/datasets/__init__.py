"""Image collections to try things on, and one's own photos in class folders."""

from ._elpv import load_elpv
from ._fashion_mnist import load_fashion_mnist
from ._image_folder import load_image_folder
from ._wallpaper import make_wallpaper_groups

__all__ = ["load_elpv", "load_fashion_mnist", "load_image_folder", "make_wallpaper_groups"]
