"""A small container for multi-model endpoints, and ways to break its contract, one at a time.

``python -m sabotage serve`` runs the one that the variable SABOTAGE names (``sabotages.py``); without the
variable, the correct one (``container.py``). It listens on SAGEMAKER_BIND_TO_PORT (8080).
"""
