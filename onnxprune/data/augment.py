class Augmentation:
    @classmethod
    def parse(cls, text):
        return cls()
