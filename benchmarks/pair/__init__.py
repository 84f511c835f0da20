"""The matched pair: two models that differ only in the head, trained on real text for hours."""
