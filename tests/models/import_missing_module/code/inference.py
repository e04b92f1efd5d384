import a_module_that_nobody_has


def model_fn(model_dir):
    return a_module_that_nobody_has.load(model_dir)
