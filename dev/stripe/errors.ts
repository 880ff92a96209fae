// Errors in Stripe's form. The simulated API throws an ApiError for every refusal; the edge turns it into
// `{ error: { type, code, message, param } }` with its status. Any other exception is a bug in the simulator.
export interface ErrorBody {
  type: "invalid_request_error" | "idempotency_error" | "api_error" | "card_error";
  message: string;
  code?: string;
  param?: string;
}

export class ApiError extends Error {
  status: number;
  body: ErrorBody;
  /** Value of the header `stripe-should-retry`. Undefined omits it, as Stripe usually does. */
  shouldRetry: boolean | undefined;

  constructor(status: number, body: ErrorBody, shouldRetry?: boolean) {
    super(body.message);
    this.status = status;
    this.body = body;
    this.shouldRetry = shouldRetry;
  }
}

/** A 400 about the request's content. `param` is in Stripe's notation, for instance `items[0][price]`. */
export function badRequest(message: string, detail: { code?: string; param?: string } = {}): ApiError {
  return new ApiError(400, { type: "invalid_request_error", message, ...detail });
}

/** A missing object: 404 when the path names it, 400 when a parameter does. */
export function noSuch(kind: string, id: string, param?: string): ApiError {
  const status = param === undefined ? 404 : 400;
  return new ApiError(status, {
    type: "invalid_request_error",
    code: "resource_missing",
    message: `No such ${kind}: '${id}'`,
    param: param ?? "id",
  });
}

/** The 402 of a declined payment. */
export function declined(): ApiError {
  return new ApiError(402, { type: "card_error", code: "card_declined", message: "Your card was declined." });
}

/** The 500 of fault rules. Stripe tells clients not to retry a 500 under a key: the retry would replay the answer. */
export function internalError(): ApiError {
  return new ApiError(500, { type: "api_error", message: "An unknown error occurred" }, false);
}

export function rateLimited(): ApiError {
  return new ApiError(429, {
    type: "invalid_request_error",
    code: "rate_limit",
    message: "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
  });
}

/** The 429 for an object that another request has locked. Stripe's SDKs retry only this 429 automatically. */
export function lockTimeout(): ApiError {
  const message =
    "This object cannot be accessed right now because another API request or Stripe process is currently accessing it. " +
    "If you see this error intermittently, retry the request. If you see this error frequently and are making multiple " +
    "concurrent requests to a single object, make your requests serially or at a lower rate.";
  return new ApiError(429, { type: "invalid_request_error", code: "lock_timeout", message }, true);
}
