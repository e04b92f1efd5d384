"""Needs a package that is not there."""

import no_such_package


def handle(data, context):
    return no_such_package.answer(data)
