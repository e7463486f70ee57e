"""The small chat model that the embedded engine serves by default: its data, its training, its evaluation."""
