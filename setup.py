"""Builds the one distribution, mmekit, from its source roots; versions are pinned in constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

#: Import package → the folder that holds it. Folders are named by role, packages live inside.
ROOTS = {
    "mmekit": "container",
    "mmekit_handlers": "handlers",
}

#: The server and people's own handlers; nothing here imports numpy.
BASE = [
    "click>=8.1",
    "httptools>=0.6",
    "msgspec>=0.18",
    "orjson>=3.10",
    "packaging>=23",
    "rich>=13",
    "uvloop>=0.19",
]

XGBOOST = [
    "numpy>=1.26",
    # 5 MB instead of 480 with NCCL; 3.0 is the last that reads boosters saved by old AWS containers.
    "xgboost-cpu>=3.0,<3.1",
]

SKLEARN = [
    "joblib>=1.4",
    "numpy>=1.26",
    "pandas>=2.2",
    "scikit-learn>=1.4",
    "skops>=0.11",
]

PYTORCH = [
    "numpy>=1.26",
    "safetensors>=0.4",
    "torch>=2.6",
]

DEV = [
    "build>=1.2",
    "hypothesis>=6.100",
    "lightgbm>=4.3",  # examples/custom-framework
    "mypy>=1.13",
    "psutil>=6",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "ruff>=0.8",
    "uv>=0.5",  # resolves Dockerfile.gpu's packages from metadata alone
]


def version() -> str:
    """Read the version from its one place without importing the package."""
    text = (HERE / "container/mmekit/__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('container/mmekit/__init__.py has no line __version__ = "..."')
    return found.group(1)


def readme() -> str:
    """Return the long description; image builds install without it."""
    path = HERE / "README.md"
    return path.read_text() if path.exists() else ""


setup(
    name="mmekit",
    version=version(),
    description="Many models in one container: a SageMaker multi-model server in Python, with handlers",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="sagemaker multi-model endpoint MME model server xgboost scikit-learn pytorch",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    package_dir={package: f"{root}/{package}" for package, root in ROOTS.items()},
    packages=[
        package
        for name, root in ROOTS.items()
        for package in find_packages(str(HERE / root), include=[name, f"{name}.*"])
    ],
    package_data={package: ["py.typed"] for package in ROOTS},
    zip_safe=False,
    install_requires=BASE,
    extras_require={
        "xgboost": XGBOOST,
        "sklearn": SKLEARN,
        "pytorch": PYTORCH,
        "all": sorted({*XGBOOST, *SKLEARN, *PYTORCH}),
        "dev": DEV,
    },
    entry_points={"console_scripts": ["mmekit = mmekit.cli:main"]},
)
