"""Token ids → text → stop strings → what it means → OpenAI chunks. No IO, no clock; chance only in the ids of calls."""
