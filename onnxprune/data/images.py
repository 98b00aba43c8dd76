def open_images(text, request):
    raise NotImplementedError


IMAGE_FOLDER = "a folder of images"
