"""What the user gave (fun, jac, args, data) as one object."""
