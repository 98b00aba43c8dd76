class Transform:
    @classmethod
    def parse(cls, text, spec):
        return cls()
