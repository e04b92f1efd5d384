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
    "mmekit_endpoint": "endpoint",
    "mmekit_toolkit": "toolkit",
}
#: Those that are here: images are built without the endpoint and the toolkit.
PRESENT = {package: root for package, root in ROOTS.items() if (HERE / root / package).is_dir()}

#: The server and people's own handlers; nothing here imports numpy.
BASE = [
    "click>=8.1",
    "httptools>=0.6",
    "javaproperties>=0.8",
    "msgspec>=0.18",
    "multipart>=1.2",
    "orjson>=3.10",
    "packaging>=23",
    "prometheus_client>=0.20",
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

#: Keystores and self-signed certificates for https; PEM files need nothing.
TLS = ["cryptography>=42"]

#: AWS's inference toolkit, for containers built around it.
SAGEMAKER = [
    "retrying>=1.3.3",
    "sagemaker-inference>=1.10",
    # pkg_resources, which AWS's toolkit imports to start a server, is gone from 82 on.
    "setuptools>=77,<82",
]

#: AWS's Multi Model Server, the second engine. It brings the top-level name `mms` and the commands
#: `multi-model-server` and `mxnet-model-server`, so it is never part of `all`.
MMS = [*SAGEMAKER, "multi-model-server==1.1.11"]

#: The local endpoint. moto's extras for the services that stand around it, without those it has for others.
ENDPOINT = [
    "boto3>=1.40",
    "docker>=7.2",
    "flask>=3",
    "flask-cors>=5",
    "gunicorn>=23",
    "moto[s3]>=5.1.20",
    "psutil>=6",
]

#: The commands around docker and AWS: build, push, deploy and what follows; `contract` for images.
DEPLOY = [
    "boto3>=1.40",
    "docker>=7.2",
    "pyyaml>=6",
]

DEV = [
    *DEPLOY,
    *ENDPOINT,
    *SAGEMAKER,
    *TLS,
    "awscli>=1.40",  # drives the local endpoint in the tests
    "bcrypt>=4",  # the password of the tests' registry
    "build>=1.2",
    "hypothesis>=6.100",
    "lightgbm>=4.3",  # examples/custom-framework
    "model-archiver==1.0.3",  # what `mmekit archive pack` is compared with
    "mypy>=1.13",
    "openapi-spec-validator>=0.7",
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
    package_dir={package: f"{root}/{package}" for package, root in PRESENT.items()},
    packages=[
        package
        for name, root in PRESENT.items()
        for package in find_packages(str(HERE / root), include=[name, f"{name}.*"])
    ],
    package_data={package: ["py.typed"] for package in PRESENT},
    zip_safe=False,
    install_requires=BASE,
    extras_require={
        "xgboost": XGBOOST,
        "sklearn": SKLEARN,
        "pytorch": PYTORCH,
        "all": sorted({*XGBOOST, *SKLEARN, *PYTORCH}),
        "deploy": DEPLOY,
        "endpoint": ENDPOINT,
        "sagemaker": SAGEMAKER,
        "tls": TLS,
        "mms": MMS,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["mmekit = mmekit.cli:main"],
        # `pytest --mme-contract IMAGE`; images have no toolkit and no pytest.
        **(
            {"pytest11": ["mme_contract = mmekit_toolkit.contract.plugin"]}
            if "mmekit_toolkit" in PRESENT
            else {}
        ),
    },
)
