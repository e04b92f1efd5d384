"""Model archives: where models are found, how archives are unpacked, what their manifests say."""
