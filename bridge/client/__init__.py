"""Reading a bridge from outside: requests (`http`), streams that outlive connections (`sse`), what they add up to (`view`)."""
