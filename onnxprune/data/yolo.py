def open_yolo(text, request):
    raise NotImplementedError
