"""What a model is fitted on: events that no position moves for, screened of outliers."""
