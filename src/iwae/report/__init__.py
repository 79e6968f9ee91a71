"""Pictures of models and their samples."""
