"""The health of streams: a state that is proven by fresh reports, or unknown with the reason."""
