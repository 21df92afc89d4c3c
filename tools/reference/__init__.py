"""Pages of docs/ that are made from the code: `python -m tools.reference` writes them, a test compares them.

settings.py   docs/settings.md, from the settings' models and the comments beside their fields
api.py        docs/api.md, from the OpenAPI document
"""
