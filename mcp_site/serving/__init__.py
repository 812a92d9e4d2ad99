"""Running the product: the supervisor and the processes that it keeps alive."""
