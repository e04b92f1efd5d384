"""Two classes and no function: which one is meant?"""


class First:
    def handle(self, data, context):
        return ["first"]


class Second:
    def handle(self, data, context):
        return ["second"]
