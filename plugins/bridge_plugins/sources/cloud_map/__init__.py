"""Services and instances registered in AWS Cloud Map."""
