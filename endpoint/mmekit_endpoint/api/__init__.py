"""The AWS face of the local endpoint: runtime, control plane, and the services around them."""
