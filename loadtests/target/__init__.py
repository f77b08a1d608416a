"""What the server reports about itself: metadata, statistics, metrics, hardware."""
