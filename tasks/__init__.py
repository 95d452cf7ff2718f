"""What is learnt and how it is scored. Knows neither the model nor the search."""
