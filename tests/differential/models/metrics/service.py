"""Records metrics and answers with what the store holds."""


def handle(data, context):
    if data is None:
        return None
    store = context.metrics
    store.add_counter("Seen", 1)
    store.add_counter("Seen", 2)
    store.add_time("Took", 12.5)
    store.add_time("TookSeconds", 2, unit="s")
    store.add_size("Size", 3)
    store.add_size("SizeKb", 4, unit="kB")
    store.add_percent("Share", 55.5)
    store.add_error("Wrong", "text")
    store.add_metric("Own", 9, unit="Things")
    refused = []
    for call in (lambda: store.add_time("T", 1, unit="h"), lambda: store.add_size("S", 1, unit="TB")):
        try:
            call()
        except ValueError as error:
            refused.append(type(error).__name__)
    rows = [
        [metric.name, metric.unit, str(metric.value), [str(dimension) for dimension in metric.dimensions]]
        for metric in store.store
    ]
    return [{"rows": rows, "refused": refused}]
