"""The inputs of a model's layers on calibration data: statistics for criteria, reconstruction and corrections."""
