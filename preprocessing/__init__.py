"""Raw OpenAI JSON → typed request → prompt → token ids → engine tensors. Values in, values out: no IO, clock or chance."""
