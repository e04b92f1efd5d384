"""mmekit: host many models in one container, on SageMaker multi-model endpoints or anywhere else."""

__version__ = "0.1.0"
