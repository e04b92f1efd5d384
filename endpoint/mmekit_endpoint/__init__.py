"""The multi-model endpoint around containers: SageMaker's side of the contract on one's own machine."""
