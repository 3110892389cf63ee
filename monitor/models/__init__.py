"""The life cycle of a model: warm-up, training events, screening, fitting, scoring, shadow and promotion."""
