class First:
    def handle(self, data, context):
        return data


class Second:
    def handle(self, data, context):
        return data
