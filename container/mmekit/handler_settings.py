"""Settings that handlers read in their workers, checked where the server starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mmekit import parsers
from mmekit.settings import setting

handler_setting = partial(setting, read_by="handlers")


@dataclass(frozen=True)
class HandlerSettings:
    """What handlers read from their environment; the server checks and documents it."""

    default_accept: str | None = handler_setting(
        None,
        {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": parsers.text},
        "media type",
        "Answer type when `Accept` is absent or `*/*`.",
        default_text="the handler's own",
    )
    inference_output: str | None = handler_setting(
        None,
        {"SAGEMAKER_INFERENCE_OUTPUT": parsers.text},
        "names",
        "XGBoost: what to answer, a comma list of predicted_label, labels, probability, probabilities, "
        "raw_score, raw_scores, predicted_score.",
    )
    inference_ensemble: bool = handler_setting(
        True,
        {"SAGEMAKER_INFERENCE_ENSEMBLE": parsers.flag},
        "true, false",
        "XGBoost: combine all model files of a folder; `false` takes the first by name.",
    )
    batch: bool = handler_setting(
        False,
        {"SAGEMAKER_BATCH": parsers.flag},
        "true, false",
        "Set by batch transform: CSV answers end each row with a newline.",
    )
    xgboost_nthread: int = handler_setting(
        1,
        {"MMEKIT_XGBOOST_NTHREAD": parsers.whole(1, 1024)},
        "threads",
        "XGBoost: threads of one prediction.",
    )
    xgboost_libsvm_base: str = handler_setting(
        "auto",
        {"MMEKIT_XGBOOST_LIBSVM_BASE": parsers.choice("auto", "0", "1")},
        "auto, 0, 1",
        "XGBoost: the number of the first feature in libsvm bodies; `auto` looks at the model and the body.",
    )
    sklearn_method: str | None = handler_setting(
        None,
        {
            "MMEKIT_SKLEARN_METHOD": parsers.exactly(
                "predict",
                "transform",
                "predict_proba",
                "predict_log_proba",
                "decision_function",
                "score_samples",
            )
        },
        "method",
        "scikit-learn: which method answers.",
        default_text="`predict`, else the first that the model has",
    )
    skops_trusted: str | None = handler_setting(
        None,
        {"MMEKIT_SKOPS_TRUSTED": parsers.text},
        "type names",
        "scikit-learn: types that a skops file may hold beside the usual ones, a comma list.",
    )
    pytorch_device: str = handler_setting(
        "auto",
        {"MMEKIT_PYTORCH_DEVICE": parsers.device},
        "device",
        "PyTorch: `auto`, `cpu`, `cuda` or `cuda:N`.",
    )
    pytorch_dtype: str = handler_setting(
        "auto",
        {
            "MMEKIT_PYTORCH_DTYPE": parsers.exactly(
                "auto", "float32", "float64", "float16", "bfloat16", "int64", "int32"
            )
        },
        "dtype",
        "PyTorch: type of the input tensor; `auto` takes that of the model's weights.",
    )
    pytorch_threads: int | None = handler_setting(
        None,
        {"MMEKIT_PYTORCH_THREADS": parsers.whole(1, 1024)},
        "threads",
        "PyTorch: threads of one call on the CPU.",
        default_text="`OMP_NUM_THREADS`",
    )
    pytorch_row_wise: bool = handler_setting(
        False,
        {"MMEKIT_PYTORCH_ROW_WISE": parsers.flag},
        "true, false",
        "PyTorch: the models predict each row by itself, so waiting requests may share a call.",
    )
    pytorch_allow_pickle: bool = handler_setting(
        False,
        {"MMEKIT_PYTORCH_ALLOW_PICKLE": parsers.flag},
        "true, false",
        "PyTorch: load files that hold more than tensors, which run code when they are read.",
    )
    pytorch_warm_export: bool = handler_setting(
        False,
        {"MMEKIT_PYTORCH_WARM_EXPORT": parsers.flag},
        "true, false",
        "PyTorch: import what `torch.export` archives need before workers are forked.",
    )
