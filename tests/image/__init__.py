"""Tests of built images on a real container engine; `make image-test` selects them."""
