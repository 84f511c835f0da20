"""Archives of format 1, whose predictions are computed in float32."""
