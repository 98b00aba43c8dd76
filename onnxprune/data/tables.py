def open_table(text, request):
    raise NotImplementedError
